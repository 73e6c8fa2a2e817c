"""Names of plays, blocks, tasks and handlers start with a verb of the list."""

from language_rule import LanguageRule


class VerbRule(LanguageRule):
    """The first word of a name is a verb of vocabulary.VERBS."""

    id = "verb"
    description = "An operator reads task names as a log: the first word is a verb that upstream documentation uses."
