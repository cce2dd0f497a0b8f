"""Building blocks shared by declarative spaces."""
