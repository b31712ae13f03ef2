"""What a workspace, key, assistant or upstream may use."""
