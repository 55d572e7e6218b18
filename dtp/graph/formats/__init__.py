"""What a graph holds, as files of other programs: JSON, CSV, GraphML, RDF. docs/formats.md."""
