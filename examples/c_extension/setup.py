from greenlet import get_include
from setuptools import Extension, setup

setup(ext_modules=[Extension("values", ["values.c"], include_dirs=[get_include()])])
