"""The machinery of do(unit := v): values, what runs again, first derivatives, worlds under any set of interventions."""
