"""/v1/responses over any upstream that chats, with the stages of chat."""
