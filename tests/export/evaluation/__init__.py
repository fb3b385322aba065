"""Tests of `tome-export eval` and its parts."""
