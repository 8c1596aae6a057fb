"""Numerical solvers of the methods: mixtures, quadratic programs, multinomial regression."""
