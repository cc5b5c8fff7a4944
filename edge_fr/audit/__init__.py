"""What a camera can and cannot do, told to the person who installs it: gathered, concluded, and as a page."""
