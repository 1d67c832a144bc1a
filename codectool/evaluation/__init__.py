"""How good coded speech is: measures, systems to compare, tables and a page to listen to."""
