"""A whole network as circuits: conversion, calibration, and the module that runs it."""
