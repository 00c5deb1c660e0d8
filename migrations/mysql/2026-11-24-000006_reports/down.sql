DROP TABLE report_days;
DROP TABLE report_accounts;
DROP TABLE projections;
