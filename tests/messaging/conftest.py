"""Is here so that tests in the folders below find the modules beside it (`post_office`, `village`)."""
