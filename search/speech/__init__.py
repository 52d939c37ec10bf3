"""What a study of a recogniser is made of: corpora, sources, features, vocabularies, the look at test, export."""
