"""What a verb is given: the request, the method, its folders; checked before any computation."""
