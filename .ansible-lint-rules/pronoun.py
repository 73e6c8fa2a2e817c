"""Names of plays, blocks, tasks and handlers have nouns, not pronouns."""

from language_rule import LanguageRule


class PronounRule(LanguageRule):
    """A name has no pronoun in the place of its object."""

    id = "pronoun"
    description = 'A task name is read alone, in a log of hundreds of lines, where "it" has no meaning.'
