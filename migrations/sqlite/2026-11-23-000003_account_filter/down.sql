DROP TABLE account_filter;
