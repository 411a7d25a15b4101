"""Reports: a record as one HTML page or as a table, computed from the record alone.

```python
from unweave.report import html, tables
from unweave.record import record

made = record.load("runs/demo")
html.write(made, "runs/demo/report.html")
print(tables.text(made))
```
"""
