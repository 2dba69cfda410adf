"""What ``snapferry serve`` offers over HTTP. The home of aiohttp's server.

``application.py`` puts the parts together, each of which has its own prefix: ``objects.py`` the object API for other snapferries.
It serves stores as they are and needs no key of a repository.
"""
