"""Tests, arranged as the code is: tests/core/test_credit.py for dwp_core/credit.py."""
