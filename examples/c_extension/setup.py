from greenlet import get_include
from setuptools import Extension, setup

values = Extension("values", ["values.c"], include_dirs=[get_include()])
setup(ext_modules=[values])
