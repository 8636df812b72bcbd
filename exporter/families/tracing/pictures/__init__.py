"""Pictures that go into a pipeline: what its processors make of them, and where drawing starts from one."""
