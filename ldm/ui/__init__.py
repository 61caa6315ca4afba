"""The web page: draw, edit, there and back, and a gallery of what was made.

    controls --tasks--> updates --page--> browser

studio.py   one model, and one thread that works with it
tasks.py    what the controls say -> what the page shows next; knows nothing of Gradio
shelf.py    one visitor's pictures, as files that say how they were made
page.py     what it looks like (the one place that needs Gradio)
"""
