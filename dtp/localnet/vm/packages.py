"""tmp"""
class PackageBuilder:
    def __init__(self, linker, natives): pass
