-- The part of gpu_energy_j and cpu_energy_j that the devices draw with nothing to do; NULL where their idle power is
-- not known. Gross less idle is what the request added.
ALTER TABLE measurements ADD COLUMN gpu_idle_energy_j REAL;
ALTER TABLE measurements ADD COLUMN cpu_idle_energy_j REAL;
