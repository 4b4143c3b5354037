"""What is asked and what is answered: vocabulary, codecs and caches of resolution."""
