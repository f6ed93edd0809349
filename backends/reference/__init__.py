"""What ops compute, in numpy: exactly (`float64`), on the machine (`typed`), and how far apart the
two may be (`bounds`, `composition`).

`composites` is imported here, as it registers with the others and none of them needs it.
"""

from tilewright.backends.reference import composites as composites
