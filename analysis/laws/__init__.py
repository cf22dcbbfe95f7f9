"""Scaling laws: their forms, fits, and the choice by held-out error."""
