"""Pages for people: one HTML file each that holds all it shows, opens offline and asks no network for anything."""
