"""A server over bundles: OpenAI's images API, A1111's API and a page, with dynamic batching. Needs the extra [serve]."""
