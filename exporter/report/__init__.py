"""What people read: tables on the console, descriptions of recipes, plans and bundles."""
