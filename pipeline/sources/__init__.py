"""Labels that people gave: imported into our row shape, mixed by weight, compared with ours."""
