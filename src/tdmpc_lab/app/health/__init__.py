"""Whether the project, the installation and a job's learning are well."""
