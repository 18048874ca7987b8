"""The user's mistakes, one class for each floor that finds them. `Mistake` is the base of all."""


class Mistake(ValueError):
    """An error that the user can mend: it names the file or key, the value, what was expected, and what to do."""


class WeightsError(Mistake):
    """Weights or a network that cannot be used or built as asked."""


class DataError(Mistake):
    """Data that cannot be used as asked."""


class Undecided(DataError):
    """Data that can be read in two ways; a setting says which. Leaving out samples would hide it."""


class UnknownClasses(DataError):
    """Data with classes that a model does not know. `in_training` says it where they are a training split's, before any model."""

    def __init__(self, message: str, in_training: str = ""):
        super().__init__(message)
        self.in_training = in_training or message


class EngineError(Mistake):
    """A run that cannot go on as asked (a loss that is not finite, a checkpoint of another model, a full disk)."""


class RecipeError(Mistake):
    """One or more wrong settings; `problems` has a line for each."""

    def __init__(self, problems: list[str] | str):
        self.problems = [problems] if isinstance(problems, str) else problems
        super().__init__("\n".join(self.problems))
