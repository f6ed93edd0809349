"""What ops compute, in numpy: exactly (`float64`), on the machine (`typed`), and how far apart the
two may be (`bounds`, `composition`).

`composites` and `int8_ops` are imported here, as they register with the others and none of them
needs them.
"""

from tilewright.backends.reference import composites as composites
from tilewright.backends.reference import int8_ops as int8_ops
