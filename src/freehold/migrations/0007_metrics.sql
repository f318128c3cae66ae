-- What the operator has borne is read at each scrape of the metrics: few rows, and these name them.
create index charges_absorbed on ledger.charges (account_id) where absorbed > 0;
create index grants_absorbed on ledger.grants (account_id) where absorbed > 0;
