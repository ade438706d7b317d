"""The APIs that clients already speak. Each module is one of them; what they have in common stands in the others.

`embeddings` is the way from a request to its result; `embeddings_request` reads the common body, with `inputs` for its
items; `embeddings_response` writes the common answer; `route` is the kind of route they are served by;
`schema` and `documentation` describe all this to OpenAPI.
"""
