"""A small application of Flask: a page from a template, whose calls nest as in real ones."""

from flask import Flask, jsonify, render_template_string, request

PAGE = """<!doctype html>
<title>{{ title }}</title>
<ul>{% for item in items %}<li>{{ item.name }}: {{ item.price }}</li>{% endfor %}</ul>
"""

application = Flask(__name__)


@application.get("/")
def page() -> str:
    """Render a list."""
    items = [{"name": f"item {number}", "price": number * 3} for number in range(20)]
    rendered: str = render_template_string(
        PAGE, title=request.args.get("title", "items"), items=items
    )
    return rendered


@application.get("/json")
def numbers() -> object:
    """Answer in JSON."""
    return jsonify(numbers=list(range(50)))
