"""Which tensor is stored in which scheme: rules, tables and allocation of bits to a budget."""
