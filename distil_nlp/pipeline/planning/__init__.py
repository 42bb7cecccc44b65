"""Planning: what a run will take, stage by stage, before it runs."""
