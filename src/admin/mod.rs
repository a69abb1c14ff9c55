//! HTTP: health, metrics, JSON API.
