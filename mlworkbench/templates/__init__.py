"""Files that come with the package and are copied: run notebooks, services, a new workbench."""
