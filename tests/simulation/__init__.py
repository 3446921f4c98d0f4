"""Many clients and one server under faults: the simulation of `dwp_core.testing`, run over many seeds.

python -m tests.simulation --seed 7              one seed, with the whole history when it fails
python -m tests.simulation --seed 0 --count 1000 many; prints what fails, and goes on
"""
