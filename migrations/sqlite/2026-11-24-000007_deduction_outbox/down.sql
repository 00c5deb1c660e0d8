DROP TABLE deduction_outbox;
