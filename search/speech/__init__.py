"""What a study of a recogniser is made of: corpora, sources, features, vocabularies, evaluation on test, export."""
