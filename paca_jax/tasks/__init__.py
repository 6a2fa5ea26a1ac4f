"""The three tasks over one base class: data, loss, metrics and predictions of each."""
