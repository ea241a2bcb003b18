"""Results as data: records of finished runs, published claims beside them, and the pages made from both.

Nothing here imports JAX: a record is a JSON file, a page is text.

- `records`: what a record holds, and how it is checked and loaded;
- `markdown`: a record as a table and as a section of a page;
- `published`, `verdicts`: claims of papers, and what our numbers say about them;
- `pages`: all pages that are made from `results/`, `python -m sbjax.claims.pages`;
- `recording`: a record from a finished workdir;
- `rerun`: a claim's command once more, at a small scale, beside the number on record.
"""
