"""The exceptions of the house.

    BerniniError
    ├── ConfigError     a flag or argument that cannot be used
    ├── InputError      an input folder or list that cannot be used
    ├── ManifestError   a table or folder that breaks the contract
    ├── MediaError      one video or image that cannot be read (becomes null + an issue)
    ├── BackendError    one answer of a model or server that cannot be used (null + an issue)
    └── RunStopped      a guard stopped a run: too many failures, or nothing passed

Every message says what is wrong, the value, where, and what to do. The command line
prints it as one line and exits with `exit_code`; anything else is a bug and keeps its
traceback.
"""


class BerniniError(Exception):
    exit_code = 2


class ConfigError(BerniniError):
    pass


class InputError(BerniniError):
    pass


class ManifestError(BerniniError):
    pass


class MediaError(BerniniError):
    pass


class BackendError(BerniniError):
    pass


class RunStopped(BerniniError):
    exit_code = 3
