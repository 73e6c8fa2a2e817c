"""Names, variables and registers use the words of the field."""

from language_rule import LanguageRule


class GlossaryRule(LanguageRule):
    """Names and variables have no word that the glossary replaces."""

    id = "glossary"
    description = "One thing has one word, that of its upstream documentation; vocabulary.GLOSSARY lists the others."
