"""What benchmarks/campaign.py is made of; :mod:`.together` measures, the rest judges what was measured."""
