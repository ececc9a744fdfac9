from Cython.Build import cythonize
from greenlet import get_include
from setuptools import Extension, setup

tasks = Extension("tasks", ["tasks.pyx"], include_dirs=[get_include()])
setup(ext_modules=cythonize([tasks]))
