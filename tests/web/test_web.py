"""The page in the browser and its library: their own tests, and equality with Python."""


def test_the_library_equals_python(node, references):
    result = node("--test", "test/", VAE_BSS_REFERENCES=references)
    assert result.returncode == 0, result.stdout
    assert "# skipped 0" in result.stdout
